"""Temporal mesh models on lifted keypoints: movie strips of PHD and HMMR, the recurrent encoders of TCMR."""
