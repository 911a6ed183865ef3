"""Pure builders: a spec and facts in, steps and files out; the only users of templates/."""
