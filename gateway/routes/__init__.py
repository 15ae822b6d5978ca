"""The interfaces of the gateway: our own, and those that existing programs use.

captions.py        our own: /v1/captions, /v1/description
feedback.py        what people think of captions: /feedback
explanations.py    /v1/explanations, and TorchServe's /explanations/NAME
predictions.py     TorchServe's: /predictions/NAME
openai_chat.py     OpenAI's: /v1/chat/completions, /v1/models
ollama.py          Ollama's: /api
hugging_face.py    Hugging Face's: /models/NAME
kserve_v1.py       KServe's v1: /v1/models/NAME:predict
kserve_v2.py       KServe's v2: /v2
kserve_tensors.py  its tensors, in JSON and in binary
state.py           /healthz, /readyz, /metrics
page_files.py      the web page
openapi.py         /openapi.json
replies.py         types of replies
model_names.py     whether a request names the model that is served
"""
