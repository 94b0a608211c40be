"""Bodies: models of linearly skinned meshes, their files, and fitting them to a motion."""

from lifting.body.body_file import BODIES, load_body, save_body
from lifting.body.model import BodyModel

__all__ = ["BODIES", "BodyModel", "load_body", "save_body"]
