"""Pictures of results: `overlay` writes a video with the 2D skeleton beside the 3D motion."""
