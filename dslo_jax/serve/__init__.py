"""The page of ``dslo serve``: try photos, words and options in a browser.

============  ======================================================================
module        what it does
============  ======================================================================
limits        how much one request, and all of them together, may ask for
line          one task at a time, and a line of limited length before it
store         things that are kept in bounded memory under names nobody can guess
choices       the options that the page offers, and their ranges
wishes        what requests ask for, after all checks
studio        photos, drawn scenes and results: all work that needs the networks
views         results as the page shows them
guard         refuses requests of other web sites; headers that limit the page
bodies        reads the body of a request, with limits on size and time
app           the addresses of the page
server        opens the socket, and closes connections that are too slow
============  ======================================================================

Nothing in a request names a file, a folder or an address on the web, and nothing of it
is executed. Everything here needs the extra ``serve``, except for ``limits``.
"""

from dslo_jax.serve.limits import Limits as Limits
