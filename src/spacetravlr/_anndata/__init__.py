"""The interface: everything that reads or writes an AnnData in the package's own format passes through here."""
