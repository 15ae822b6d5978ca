"""The captioner itself: image -> pixels -> feature -> prefix -> caption.

Reading order, for a server:

    refusal                          the error whose message is for the user
    options                          the options of caption generation: names, limits, defaults
    tokenizer                        GPT-2's tokenizer.json
    image/refusals                   why an image is refused; the accepted formats
    image/limits                     what an image file may cost to decode
    image/jpeg                       the parts of a JPEG file: what decoding costs, is it whole
    image/colour                     colours of a decoded image -> sRGB without transparency
    image/decode                     bytes of a file -> upright RGB image
    image/preprocessing              RGB image -> pixels of the encoder
    ood                              how far a feature is from those of the training images
    artifact                         the exported captioner: pixels -> captions
    caption_words                    token ids of a caption -> its words
    explanation                      the parts of an image that each word of its caption rests on

The network, as the paper draws it (`network`), first as it is trained, then as it is served:

    config                           the sizes that travel with the weights
    network/captioner                encoder -> mapper -> language model, and the caption loss
    network/encoder                  CLIP and SigLIP, of other libraries
    network/mapper                   features -> prefix
    network/vision_transformer       the encoder as it is served
    network/decoder                  GPT-2 as it is served, with its cache
    network/choice                   which tokens may follow: no repetition, drawing by chance
    network/spelling                 what tokens add to a text, for limits of characters
    network/drafts                   guesses of the next tokens, for a faster greedy search
    network/quality                  how likely a caption is right, from the decoder's states
    network/search                   greedy, beam and drawn captions over the decoder
    network/served                   encoder, mapper and search in one module
    network/conversion               trained modules -> served modules, with the same weights

How served layers are computed (`layers`):

    layers/precision                 the precisions, and what this processor supports
    layers/linear                    packed linear layers in fp32, fp16 and bf16
    layers/int8_linear               packed linear layers with 8-bit weights
    layers/output_layer              GPT-2's output layer and the choice of the best tokens
    layers/packing                   replaces the layers of a network by packed ones
    layers/memory                    keeps large weights in the file they were loaded from
    layers/loading                   TorchScript file -> module that is packed and ready

What training writes, and what is served:

    whole_folder                     folders that are written completely or not at all
    learned_file                     files of what is learned after the weights
    quality_file                     the quality head beside the weights of a checkpoint
    ood_file                         the out-of-distribution score beside them
    reference_file                   what the captioner says about usual pictures
    checkpoint                       the folder of a trained captioner
    export                           checkpoint -> artifact

The same without TorchScript (`programs`):

    programs/modules                 what is exported, and the decoder of a search over it
    programs/export                  checkpoint -> programs of torch.export
    programs/packing                 packs the layers of a program when it is loaded
    programs/load                    programs, or either kind of artifact -> captioner

Weights of others (`pretrained`):

    pretrained/torchvision_operators a torchvision that does not fit torch, before transformers
    pretrained/hugging_face          CLIPs, SigLIP and tokenizers by name or folder
    pretrained/preprocessor_config   Hugging Face's files about preprocessing
    pretrained/encoder_folder        an image encoder by name or folder
    pretrained/sources               the published captioners: names, files, checksums
    pretrained/hub                   downloads from the Hugging Face hub, resumed and checked
    pretrained/checkpoint_name       a captioner's folder, or its name on the hub -> its folder
    pretrained/weights_file          reads the weights file of a published captioner
    pretrained/completion            adds an encoder and a tokenizer to a published captioner
    pretrained/published             the command: a published captioner -> checkpoint
"""
