"""How far predicted changes agree with observed ones."""
