"""MovieLens folders, as unpacked from the archives of GroupLens: every format, one total order.

``layout`` recognises a folder by its files, and says what is wrong with one that is none; ``ratings`` reads and sorts
the ratings within a bounded memory; ``titles`` reads titles, years and genres; ``users`` reads who the users are;
``folder`` makes a dataset of ratings and movies; ``releases`` lists what GroupLens publishes.
"""

from streams.movielens.folder import MovieLensFolder, find_bundled, read_movies
from streams.movielens.releases import RELEASES, Release
from streams.movielens.users import read_user_groups

__all__ = ["RELEASES", "MovieLensFolder", "Release", "find_bundled", "read_movies", "read_user_groups"]
