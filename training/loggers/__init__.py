"""Where trainings are recorded beside their CSV log: W&B, TensorBoard, MLflow.

packages         the names of the loggers, and the check that their packages are installed
provenance       what a run was made from: settings, commit, fingerprint of the data
samples          pictures of the validation split that are shown with their captions
run              one logger of a run: what each of them can record; the run's name and ids
wandb_run        Weights & Biases
tensorboard_run  TensorBoard
mlflow_run       MLflow
recorder         the callback that records a training in all of them
"""
