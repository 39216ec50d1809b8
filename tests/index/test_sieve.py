"""Keys that were met: by whichever thread the last of them is let go."""

import threading

from morgana.index._sieve import Seen


def test_a_list_of_keys_may_be_let_go_by_another_thread():
    seen = [Seen()]
    assert (seen[0].add("a", "first"), seen[0].add("a", "second")) == (None, "first")
    thread = threading.Thread(target=seen.clear)  # where the garbage collector happens to run
    thread.start()
    thread.join()
    assert not seen
