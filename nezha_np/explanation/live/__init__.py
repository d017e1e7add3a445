"""The live page: the model itself, in plain JavaScript, in a page that computes what a person types.

``safetensors.mjs``, ``wordpiece.mjs`` and ``nezha.mjs`` are a port of the model, which Node.js and browsers import;
``live.html``, ``live.css`` and ``live.js`` are the page.
"""
