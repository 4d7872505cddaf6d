"""A world whose users, movies and taste are known: ratings of any number, in time order, in bounded memory.

``draws`` gives every random number as a hash of what it is for, so nothing depends on chunks or on where reading
starts; ``options`` says how large a world is; ``schedule`` decides who rates when; ``catalogue`` holds the movies;
``taste`` is the truth that the oracle tells; ``picks`` lets users choose; ``world`` puts them into time order.
"""

from streams.synthetic.options import SyntheticOptions, parse_options
from streams.synthetic.taste import Oracle
from streams.synthetic.world import SyntheticDataset

__all__ = ["Oracle", "SyntheticDataset", "SyntheticOptions", "parse_options"]
