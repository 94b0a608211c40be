"""Why the frames of a batch should come from many clips: chunks of 1 to 128 frames at equal frames per step.

    python -m experiments.batch_correlation [--data data/mocap/mocap17.h5]

Every step predicts as many frames; with longer chunks they are neighbours, cheaper to compute and more alike, which
spoils the statistics of batch normalisation (the paper's section 5). No number of the paper's is compared. Writes
``runs/paper/batch_correlation.json`` and ``.md``.
"""

from __future__ import annotations

from experiments.paper_runs import P1, P2, VELOCITY, Experiment, Row, command

CHUNKS = (1, 4, 16, 64, 128)
EXPERIMENT = Experiment("batch_correlation", "Correlated batches: frames that a sample predicts",
                        tuple(Row(f"chunks of {chunk}", {"stride": chunk}) for chunk in CHUNKS), (P1, P2, VELOCITY))
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
