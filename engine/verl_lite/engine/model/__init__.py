"""Models as Hugging Face folders: load, build, save, quantise, add adapters, name the weights to sync."""
