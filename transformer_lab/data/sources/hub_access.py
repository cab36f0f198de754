"""Whether the Hugging Face hub answers, and whether a data set lies in its cache: known within seconds."""

import os
import threading

PATIENCE = 3.0  # seconds for the hub to answer; `datasets` alone would try for 24 and look hung


def reachable() -> bool:
    from huggingface_hub import constants

    answers: list[bool] = []
    # A thread of its own, for looking up a host's name knows no time limit.
    thread = threading.Thread(target=lambda: answers.append(_answers()), daemon=True)
    if not constants.HF_HUB_OFFLINE:
        thread.start()
        thread.join(PATIENCE)
    return any(answers)


def _answers() -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # whatever went wrong, nobody answered
        return False
    return True


def cached(dataset: str) -> bool:
    """Whether `datasets` holds a prepared copy, where it will look for one itself."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = dataset.rpartition("/")
    folder = "___".join(filter(None, (owner, camelcase_to_snakecase(name))))
    return os.path.isdir(os.path.join(os.path.expanduser(datasets.config.HF_DATASETS_CACHE), folder))
