"""Keypoint files that other tools wrote, and our own, read into one shape: detections per frame.

`read_keypoints(path)` looks at the content of a file (or a folder), not only at its suffix. Formats:

videopose3d
    Detections, `clip.mp4.npz` of the inference scripts: `keypoints[t] = [[], (N, 4, 17)]` with rows x, y,
    logit, probability, `boxes[t] = [[], (N, 5)]`, `metadata = {'w', 'h'}`. Data sets, `data_2d_*.npz`:
    `positions_2d = {subject: {action: [(T, J, 2|3), one per camera]}}` in pixels and `metadata =
    {'layout_name', 'num_joints', 'keypoints_symmetry', 'video_metadata'}`; where there are several sequences,
    `sequence="subject/action/camera"` picks one. Pickled parts go through an allow list.
coco
    Results, a list of `{"image_id": 12, "category_id": 1, "keypoints": [x, y, score, ...], "score": 0.9}`, or
    an annotation file with `images` (sizes, names), `annotations` and `categories`. COCO-WholeBody `foot_kpts`
    are used where present.
openpose
    A folder of `NAME_000000000012_keypoints.json`, or one of them: `{"people": [{"pose_keypoints_2d": [x, y, c,
    ...]}]}`.
alphapose
    `alphapose-results.json`: a list of `{"image_id": "12.jpg", "keypoints": [x, y, score, ...], "score": 2.9,
    "idx": 1}`.
mmpose
    Predictions of the inferencer (`[{"frame_id": 0, "instances": [{"keypoints": [[x, y], ...],
    "keypoint_scores": [...]}]}]`), of the demos (`{"meta_info": ..., "instance_info": [...]}`), of one image (a
    list of instances), and a folder of these.
deeplabcut
    Predictions of `analyze_videos`, `.h5` (a table of pandas) or `.csv`, of one individual or several: columns
    scorer, individuals (optional), bodyparts, coords (x, y, likelihood), a row per frame. Body parts are matched by
    name ("LeftShoulder", "left shoulder", "l_shoulder" and "lshoulder" are one).
sleap
    Analysis files `.h5` (`tracks`, `node_names`, `point_scores`) and projects `.slp` of one video; where a frame
    was labelled by hand, that counts. Nodes are matched by name, as above.
lift
    Our own. npz: `keypoints` (T, J, 2|3) or (P, T, J, 2|3) pixels and, each optional, `scores` ([P,] T, J),
    `ids` (P,), `fps`, `image_size` (w, h), `skeleton`, `metadata` (a JSON string with the last three), so a
    result of `lift run` is one. npy: the first array alone. json: an object with the same names. csv: columns
    frame, person, joint, x, y, score, a row for each joint that is seen, person and score optional, and above
    them optionally a line `# {"fps": 50, ...}`.

Rules for all of them. Frames that the file leaves out stay gaps: frame t of the result is the file's number
`start` + t. People are told apart by the file's ids or, without, left for the tracker (`ids` is None); they
never mix. Pixels, origin top left. A joint whose position is NaN, whose confidence is 0, or that lies at
exactly (0, 0) without a confidence, is not seen. Values beyond [0, 1] in the place of a confidence are taken as
COCO's flags 0/1/2 or as logits, and a note says so. The number of joints decides the layout where neither the
file nor the caller names it: 16 MPII, 17 COCO, 18 OpenPose-COCO, 23 COCO with feet, 25 BODY-25, 26 Halpe, 33
MediaPipe, 133 COCO-WholeBody (its first 23), 136 Halpe full body (first 26).
"""

from __future__ import annotations

import os
from types import ModuleType

from lifting.detectors.files import alphapose, coco, deeplabcut, mmpose, openpose, ours, sleap, videopose3d
from lifting.detectors.files.content import Content, read_content
from lifting.detectors.files.keypoint_file import KeypointFile, Request
from lifting.detectors.files.ours import write_keypoints
from lifting.skeletons import Skeleton

__all__ = ["FORMATS", "KeypointFile", "read_keypoints", "write_keypoints"]

FORMATS: dict[str, ModuleType] = {
    "videopose3d": videopose3d,
    "coco": coco,
    "openpose": openpose,
    "alphapose": alphapose,
    "mmpose": mmpose,
    "deeplabcut": deeplabcut,
    "sleap": sleap,
    "lift": ours,
}
"""Every format: a module with `LOOKED_FOR` (words), `matches(content)`, `read(content, request) -> Poses`."""


def read_keypoints(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    fps: float | None = None,
    skeleton: Skeleton | str | None = None,
    format: str | None = None,
    sequence: str | None = None,
) -> KeypointFile:
    """Read a keypoint file, or a folder of them, of any tool in `FORMATS`.

    image_size (width, height) pixels, fps and skeleton win over what the file says; format is sniffed unless given;
    sequence ("subject/action/camera") picks one of the several in a VideoPose3D data set. Raises FileNotFoundError,
    OSError when it cannot be opened, and ValueError with one sentence for anything that is not keypoints of one video.
    """
    request = Request(image_size=image_size, fps=fps, skeleton=skeleton, sequence=sequence)
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown keypoint format {format!r}: expected one of {', '.join(FORMATS)}")
    content = read_content(path)
    name = _sniff(content, format)
    if sequence is not None and name != "videopose3d":
        raise ValueError(f"{content.name} has no sequences, but sequence={sequence!r} was given: leave it out")
    try:
        return FORMATS[name].read(content, request).assemble(name, request)
    except ValueError as error:
        reason = " ".join(str(error).split())  # text of the file in a message must not break the line
        raise ValueError(f"{content.name}: {reason}") from error


def _sniff(content: Content, wanted: str | None) -> str:
    if wanted is not None:
        if not FORMATS[wanted].matches(content):
            raise ValueError(f"{content.name} is not in the format {wanted!r}: looked for {FORMATS[wanted].LOOKED_FOR}")
        return wanted
    for name, module in FORMATS.items():
        if module.matches(content):
            return name
    looked_for = "; ".join(f"{name}: {module.LOOKED_FOR}" for name, module in FORMATS.items())
    raise ValueError(f"{content.name} holds {content.describe()}, no known keypoint format; looked for {looked_for}")
