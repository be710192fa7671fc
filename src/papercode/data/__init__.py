"""Seeded synthetic corpora and tasks; nothing is downloaded."""
