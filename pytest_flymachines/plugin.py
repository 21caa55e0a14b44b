"""pytest's hooks and fixtures, thin: each calls something below."""
