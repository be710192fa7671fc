"""What the papers of each family are about, in one line."""

ABOUT = {
    "words": "One vector a word, learned from the words around it.",
    "tokens": "How text is cut into pieces: by pairs, by likelihood, by bytes.",
    "recurrent": "Reading word by word, up to the first attention.",
    "convolutional": "Filters over text and images; residual connections.",
    "attention": "The Transformer, its positions, its cheaper variants, its kernels.",
    "encoders": "BERT and its kin: a vector for each word in its context.",
    "decoders": "GPT and its kin: the next word, and the next.",
    "encoder_decoders": "T5, BART, GLM: read one text, write another.",
    "crosslingual": "One model for many languages.",
    "adaptation": "From a trained model to a task: LoRA, prompts, adapters.",
    "compression": "Smaller and faster: distillation, early exit.",
    "retrieval": "Sentence vectors, topics, and models that look things up.",
    "multimodal": "Pictures and speech beside text.",
    "alignment": "Learning from what people prefer.",
    "analysis": "Probes, benchmarks and surveys.",
}
"""One line for each of `papercode.site.notes.FAMILIES`."""
