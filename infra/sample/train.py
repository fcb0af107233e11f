"""Learn the shipped match model from a sample of another seed: `python -m infra.sample.train`.

The truth is not read. The sample that is measured has another seed than the one the model is learnt from.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.sample.generate import generate
from infra.sample.reading import read_records
from services.profiles.domain import model
from services.profiles.resolution.people import newest_versions, resolve, train_people

TRAINING_SEED = 19491001
BANDS = (7.0, 1.0)  # bits: a merge is wrong less than once in 128; below 2:1 on nobody is asked
VERSION = "sample-2026.11-4"


def main() -> None:
    """Write services/profiles/domain/match_model.json."""
    with TemporaryDirectory() as directory:
        generate(Path(directory), TRAINING_SEED)
        records = read_records(Path(directory), datetime(2026, 11, 1, tzinfo=UTC))
    chosen = newest_versions(record for record in records if not record.is_rejected)
    trained = train_people(chosen, VERSION, BANDS, TRAINING_SEED)
    trained = replace(trained, people=len(resolve(chosen, trained)))
    Path(model.__file__).with_name("match_model.json").write_text(model.model_to_json(trained), "utf-8")


if __name__ == "__main__":
    main()
