"""Weights of others: Hugging Face's, open_clip's, and the published ClipCap captioners.

All modules that import transformers are in this package or in `model.network`, which imports this
package first. So a server, which imports neither, does not run the line below.
"""

from model.pretrained.torchvision_operators import declare_operators

declare_operators()  # before any module imports transformers
