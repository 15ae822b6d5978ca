"""Measurements beside other systems and in one run; they look at all other packages from outside.

The commands:

    decode        captions a second: ours, the original, Hugging Face, BLIP, the machine's limit
    serve         what TorchServe costs beside the captioner, and latency under load
    gateway       what the gateway costs beside TorchServe alone
    feedback      what feedback costs the captions of the gateway
    features      encoding a data set beside the original's loop
    train         a training step beside one of the original's loop
    quality       scores of captioners: the original's recipe and ours, a switch at a time
    memory        memory of training, as the captions become more
    steps         a training step by precision, and what deterministic costs
    quality_head  what the quality head costs when it captions
    tuned_clip    a CLIP fine-tuned on few pictures: what it learns, what it forgets
    ood           whether unusual pictures are told from usual ones, and what that costs
    capture       what capturing costs the replies of the handler
    robustness    captions of worse and worse pictures, and what the score of `ood` says of them
    heldout       scores of the default captioner on scenes drawn with a seed of their own
    explanations  whether explanations point at the things that words name
    encoder_names published encoders and GPT-2s at their real sizes: export and one caption
    golden        published weights: our captions beside those of the original code
    profile       where the time of training, features and serving goes, operator by operator
    canary_pictures   what an operator sees of a trial and of a wrong captioner
    readme        writes the figures of the pages in docs/ from `results/`
    real_size     writes a checkpoint of the published sizes with random weights

What they use:

    machine       this machine, its folder of results, processes of their own
    captioners    the systems that `decode` compares
    original      the inference of the original code, written out plainly
    original_training   its training, written out plainly
    drawn_scenes  scenes drawn for a measurement
    corruptions   pictures made worse, in five strengths
    clients       requests to a server: always busy, alone, or at random moments
    connections   requests of little work, and connections that are idle or slow
    encoder_shapes    the published encoders: their sizes, folders with random weights
    gpt2_names    the published GPT-2s, and a captioner trained for one step from each
    pages         figures in Markdown
    gateway_figures   tables and plot of `gateway`
    training_figures  tables of `train`, `features` and `quality`
"""

import model.pretrained  # noqa: F401 - prepares the import of transformers
