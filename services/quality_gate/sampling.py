"""Which answers are looked at more closely: a share per tenant and model, by a hash of the request's id. Pure.

A replay samples the same. Sets are nested: what a share of 1 % picks, one of 5 % picks, too. Different purposes draw apart,
so that the judged are no part of the reviewed by construction.
"""

from hashlib import blake2b

from schemas.checks import Sampling

_WHOLE = 1 << 64


def is_sampled(request_id: str, model: str, sampling: Sampling, purpose: str) -> bool:
    """Whether this request's answer by this model is in the sample."""
    share = sampling.models.get(model, sampling.share)
    if share <= 0:
        return False
    drawn = blake2b(f"{purpose}/{request_id}".encode(), digest_size=8).digest()   # a checksum would tie purposes together
    return int.from_bytes(drawn) < share * _WHOLE
