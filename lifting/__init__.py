"""Conventions of the whole library: the one page that every docstring relies on.

Units. Metres, seconds, radians and pixels everywhere inside. Millimetres and degrees only where numbers are printed,
and where a name says so (`acceleration_error_mm_frame2`, `fov_degrees`).

Letters. N batch, T frames, J joints, C channels, K body joints, P people. Arrays come as (..., J, C); numpy float32 at
rest.

Frames.
    image   pixels, origin at the top left corner of the image, +x right, +y down. Suffix `_px`.
    camera  OpenCV axes: +x right, +y down, +z forward, origin at the camera, metres. Suffix `_cam`.
    world   right-handed, +z up, metres, origin on the floor under the main person's first root; with a calibrated
            camera the calibration's own axes, taken to have +z up and the floor at z = 0. Suffix `_world`.
    body    a body model's own rest axes, which it states; the embedded ones: +y up, +z forward, +x the person's left.
    scene   of `.glb`, `.bvh`, `.obj` and `.ply`: right-handed, +y up; y = 0 is the floor where it is known.
A `Camera` maps world to camera by x_cam = R x_world + t. Its distortion is OpenCV's k1 k2 p1 p2 k3. Rotations are
rotation vectors or matrices; quaternions are scalar first, `quat_wxyz`.

Joints. A layout is a `Skeleton`: joints by name, parents by index, -1 for the root. Lifted joints are the 17 of H36M
whatever the detector gave, in the order of `get_skeleton("h36m17")`. Left and right are the person's own.
`Motion.joints` are relative to the root (the middle of the hips); `Motion.trajectory` is the root's path;
`Motion.absolute` is their sum. `Motion.sigma` is the radius in metres around a joint that holds 68 % of its errors.

World. `Person.motion` is the raw lift in camera axes and is always kept. `Person.world` lies beside it: smoothed, bones
of constant length, feet held where they stand. `Person.contacts` (T, 4) are probabilities of standing, columns in the
order of `lifting.motion.CONTACT_POINTS`. Exporters and viewers get `lifting.world.presented(take)`.

Streams. A stream has no future: a `Pose` is one person at one moment, in camera axes, from frames up to `lookahead`
samples (at the rate of the weights) after it. The same frames in one clip, `predict(..., causal=True)`, give the same
numbers up to rounding.

Bodies. A `BodyModel` has K joints, joint 0 the root, and a mesh skinned to them in a rest pose of its own.
`BodyMotion.rotations` turn each joint's axes to its parent's, those of joint 0 to the frame. `BodyMotion.trajectory` is
the place of joint 0 itself: neither the middle of the hips nor SMPL's `transl` (trajectory minus joint 0 at rest).
One shape holds for a whole clip. `rotation_sigma` is the standard deviation of a rotation about its least certain axis.
Meshes for files and pictures are `SkinnedMesh`: plain arrays.

Confidence. A keypoint's score lies in [0, 1]. Not seen is NaN in `xy` and 0 in `score`, always both together.

Missing. Input keypoints may be NaN anywhere. What `predict` returns for one person is finite everywhere: gaps are
bridged and sigma grows there. In a `Take`, all people span its T frames, with NaN only before a person's first and
after the last.

Times. `fps` is frames per second. `Take.times` holds each frame's own time in seconds, so variable frame rates stay
exact.

Names. `load` and `save` are for our own files, `read_*` and `write_*` for foreign formats. Files are written beside
their final name and renamed over it; no pickled object is ever executed.

Errors. ValueError, FileNotFoundError, ImportError or OSError in one sentence: what was got, what was expected, what to
do.
"""

import os as _os

__version__ = "0.1.0"

# A source checkout keeps `lifting.detectors` in the folder `detectors` at its root; installed, it lies in here.
_here = _os.path.dirname(_os.path.abspath(__file__))
if not _os.path.isdir(_os.path.join(_here, "detectors")):
    __path__.append(_os.path.dirname(_here))
