"""GGUF, the format of llama.cpp: written tensor by tensor, then run in llama.cpp and measured."""
