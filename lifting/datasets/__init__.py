"""Motion data: one module per data set or file format, nothing imported until it is used.

Motion capture that lifters train on: `mocap` reads and writes its 17-joint `.h5` files; `cmu` (Acclaim `.asf`/`.amc`)
and `bvh` read folders that anybody can download; `conversion` turns what they read into pieces of that `.h5`, with the
joints of `h36m_joints`; `synthesis` films it with random cameras, `detector_noise` makes the errors of the 2D. World
frame: right-handed, Z up, metres, floor at z = 0.

Data sets as clips (`clips`: one camera's view of one take): `opening` recognises what lies in a folder and calls
`clip_file` (our own `.h5`, which streams), `mocap_rig`, `h36m` (with `h36m_cameras`), `videopose3d`, `humaneva`,
`mpi_inf_3dhp` or `threedpw`; `world_clips` is what those have in common that hold joints in the world. From clips to
batches: `budgets` which frames are labelled, `windows` batches, `frame_store` their frames, `loader` prefetching.

Forecasting and temporal bodies: `future_windows` and `strip_windows` are what they learn from, `h36m_expmap` reads
Human3.6M's exponential maps for its forecasting protocol, `image_features` vectors of image backbones from `.h5`.
"""
