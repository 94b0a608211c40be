"""Readers of motion data: one module per data set or file format, nothing imported until it is used.

`mocap` reads and writes the 17-joint `.h5` files the lifters train on; `cmu` (Acclaim `.asf`/`.amc`) and `bvh` read
folders that anybody can download; `conversion` turns what they read into pieces of that `.h5`, with the joints of
`h36m_joints`. World frame everywhere: right-handed, Z up, metres, floor at z = 0.
"""
