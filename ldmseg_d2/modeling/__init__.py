"""nn.Modules with explicit, keyword-only arguments; none of them reads a config."""
