"""One run of the training.

start       a checkpoint folder that training goes on from
trainer     Lightning's trainer, and by what the best epoch is chosen
best_epoch  keeps the checkpoint of the best epoch; ends a training that gets no better
resuming    last checkpoint of a run, its settings, and the check before it is resumed
record      what is recorded of a training, in its checkpoints and in training.json
curves      CSV tables of losses and scores
"""
