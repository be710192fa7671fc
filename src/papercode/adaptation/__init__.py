"""LoRA and the other ways to fine-tune a trained model."""
