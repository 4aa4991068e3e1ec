"""`python -m examples.balanced.client COUNT`: calls so often and prints who answered how often."""

import sys
from collections import Counter

import gslb.rpc


def main() -> None:
    """GSLB_CONTROL has the control plane's addresses, GSLB_LOCALITY says where this is."""
    answers: Counter[str] = Counter()
    with gslb.rpc.channel("hello", idempotent=True) as channel:
        greet = channel.unary_unary("/balanced.Hello/Greet", None, lambda reply: reply.decode().split(" ")[0])
        for _ in range(int(sys.argv[1])):
            answers[str(greet(b"you", timeout=10.0))] += 1
        told = channel.explain()
    for task, count in sorted(answers.items()):
        print(f"{task} answered {'always' if count == answers.total() else count}")
    print(f"shares {told['shares']}, retries {told['retries']}, failures {told['failures']}")


if __name__ == "__main__":
    main()
