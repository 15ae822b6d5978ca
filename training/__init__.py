"""From a caption data set to an archive. Each stage of the pipeline is a command.

The commands, in the order of the pipeline:

    prepare      make a data set: drawn scenes, a folder of pictures, tar shards, or COCO
    features     encode every image once with CLIP
    train        train the captioner
    quality      learn how likely a caption is right, for the field `quality` of replies
    ood          learn what training pictures look like, for the field `ood` of replies
    evaluate     score captions on the test splits; report, model card, gates of the precisions
    export       one TorchScript file, checked against the checkpoint; `try_artifact` captions
                 pictures with it
    archive      the archive that TorchServe serves; `try_archive` captions a picture with it
    publish      send a captioner with its card to the Hugging Face hub, beside the pipeline
    clip         contrastive training of CLIP, beside the pipeline
    sweep        search for better settings of train, beside the pipeline

What all of them share:

    config       types, limits and meaning of every setting; conf/config.yaml has the values
    limits       how a limit is written beside a setting, and its check
    command      the command line, and errors as one line
    precision    what a model is trained in on this machine
    device       where features, quality and evaluate compute

The parts behind the commands, in reading order; each folder's `__init__` lists its files:

    data         a caption data set on disk, and its pictures
    sources      where data sets come from
    scenes       the drawn world: pictures, captions, ground truth, and the checks of captions
    encoding     feature file and pixel cache
    captioner    training of the captioner
    judging      the quality head: captions, how right they are, learning, calibration
    ood_score    the out-of-distribution score: groups of features, learning
    contrastive  training of CLIP
    loggers      where both are recorded: W&B, TensorBoard, MLflow
    sweeping     trials with settings that Optuna suggests
    evaluation   scores, report, model card, gates of the precisions, checks of a data set
    exporting    precision, sample pictures, comparison with the checkpoint
    publishing   the card and the files of a captioner on the hub
"""

import model.pretrained  # noqa: F401 - prepares the import of transformers
