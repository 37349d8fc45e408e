"""Keys for the signatures of data requests. The signatures themselves are checked by the servers of other tests."""

from __future__ import annotations

import pytest

from lsst_lfa._client.signing import DataSigner

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SCOPE = "20150830/us-east-1/iam/aws4_request"
KEY = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
"""The example of https://docs.aws.amazon.com/general/latest/gr/sigv4-calculate-signature.html."""


@pytest.mark.parametrize(
    ("secret", "scope"),
    [
        (SECRET.swapcase(), SCOPE),
        (SECRET, SCOPE.replace("0830", "0831")),
        (SECRET, SCOPE.replace("iam", "s3")),
        (SECRET, SCOPE.replace("east", "west")),
    ],
    ids=["secret", "day", "service", "region"],
)
def test_a_key_is_that_of_its_secret_and_scope(secret: str, scope: str) -> None:
    signer = DataSigner(None, "iam", "us-east-1")
    assert signer.key(SECRET, SCOPE).hex() == KEY
    assert signer.key(secret, scope).hex() != KEY
    assert signer.key(SECRET, SCOPE).hex() == KEY


def test_a_key_is_not_shown() -> None:
    signer = DataSigner(None, "iam", "us-east-1")
    signer.key(SECRET, SCOPE)
    assert SECRET not in repr(signer)
