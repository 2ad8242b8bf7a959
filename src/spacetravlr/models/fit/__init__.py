"""From an AnnData and options to a finished fit."""
