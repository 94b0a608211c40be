"""Arrays of keypoints as other tools hold them: layout, image size and frame rate given or assumed."""

from __future__ import annotations

import numpy as np

from lifting.assumptions import announce
from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D, guess_order
from lifting.skeletons import LAYOUTS_OF_COUNT, Skeleton, get_skeleton

DEFAULT_FPS = 30.0


def keypoints_from_array(
    array: np.ndarray,
    fps: float | None,
    image_size: tuple[int, int] | None,
    skeleton: str | Skeleton | None,
    camera: Camera | None = None,
) -> Keypoints2D:
    """`Keypoints2D` from an array (T, J, 2|3) or (J, 2|3), announcing whatever is assumed. Raises ValueError."""
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise ValueError("got keypoints with rows of unequal length, expected shape (T, J, 2) or (T, J, 3)") from error
    if array.dtype == object or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"got keypoints of type {array.dtype}, expected real numbers of shape (T, J, 2) or (T, J, 3)")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[-1] not in (2, 3) or not array.size:
        raise ValueError(f"got keypoints of shape {array.shape}, expected (T, J, 2) or (T, J, 3) with T of at least 1")
    layout = _layout(array, skeleton)
    if fps is None:
        fps = DEFAULT_FPS
        announce(f"no frame rate given, {fps:g} frames per second assumed; pass fps=")
    if image_size is None:
        image_size = tuple(camera.image_size) if camera is not None else _assume_size(array)
    array = array[:, : layout.num_joints]  # 133 and 136 columns hold hands and faces too
    # Many tools write (0, 0) for what they did not see.
    score = array[..., 2] if array.shape[-1] == 3 else (array != 0).any(-1) & np.isfinite(array).all(-1)
    keypoints = Keypoints2D(array[..., :2], score, layout, image_size, fps)
    _check_pixels(keypoints.xy[keypoints.seen], keypoints.image_size)
    return keypoints


def _layout(array: np.ndarray, skeleton: str | Skeleton | None) -> Skeleton:
    count = array.shape[1]
    if skeleton is None:
        if count not in LAYOUTS_OF_COUNT:
            known = ", ".join(f"{n} ({names[0]})" for n, names in LAYOUTS_OF_COUNT.items())
            raise ValueError(f"got {count} joints, which is no known layout ({known}); pass skeleton=")
        layout = get_skeleton(LAYOUTS_OF_COUNT[count][0])
    else:
        layout = get_skeleton(skeleton)
        if layout.num_joints != count:
            raise ValueError(f"got {count} joints, but {layout.name} has {layout.num_joints}; pass the right skeleton=")
    if layout.name in ("coco17", "h36m17"):
        _warn_of_order(array, layout)
    return layout


def _warn_of_order(array: np.ndarray, layout: Skeleton) -> None:
    guess = guess_order(array[..., :2], array[..., 2] if array.shape[-1] == 3 else None)
    if guess.skeleton is not None and guess.skeleton != layout.name:
        announce(f"the columns are read as {layout.name}, but {guess.skeleton}'s order fits better; pass skeleton=")


def _check_pixels(xy: np.ndarray, image_size: tuple[int, int]) -> None:
    """ValueError for seen points (n, 2) that are shares of the image rather than pixels."""
    largest = np.abs(xy).max(initial=0)
    if len(xy) and largest <= 2.0 and max(image_size) > 16:
        raise ValueError(f"got keypoints no larger than {largest:.3g}, which look normalised; scale them to pixels")


def _assume_size(array: np.ndarray) -> tuple[int, int]:
    xy = array[..., :2][np.isfinite(array[..., :2]).all(-1)]
    if not len(xy):
        raise ValueError("got keypoints without a single finite point; pass at least one visible joint")
    _check_pixels(xy, (np.inf, np.inf))
    size = tuple(int(np.ceil(max(v, 1))) for v in xy.max(0) + np.maximum(xy.min(0), 0))
    announce(f"no image size given, {size[0]}x{size[1]} assumed from the spread of the points; pass image_size=")
    return size
