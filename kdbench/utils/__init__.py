"""Small tools that know nothing of distillation."""
