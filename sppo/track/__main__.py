"""`python -m sppo.track TRACKER RUN`: what `up` and `learner` start for each tracker."""

import sys
from pathlib import Path

from sppo.track.process import serve

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], Path(sys.argv[2])))
