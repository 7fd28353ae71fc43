"""The table of bad configurations against the JSON Schema: what a schema can know it refuses, and only what refwatch does."""

import json
import re
import sys
import tomllib

import jsonschema

# What a schema cannot know: how long a duration is, what other entries and files say.
BEYOND = re.compile(
    r"""error:\ (?:
      .*\ must\ be\ between\ \d+(?:ms|s|m|h|d)\ and
    | `(?:backoff_initial|since|remove_after)`,\ .*\ must\ not\ be\ longer\ than
    | `interval`\ must\ not\ be\ shorter\ than
    | there\ is\ no\ target
    | this\ (?:job|store)\ is\ in\ the\ watch\ list\ twice
    | this\ target\ is\ defined\ twice
    | two\ watches\ have\ the\ name
    | `external_id`\ needs\ `role_arn`
    | this\ is\ the\ id\ of\ a\ reference\ store
    | `\w+`\ is\ only\ allowed\ in\ the\ main\ file
    | `keep`\ must\ be\ a\ duration  # One that overflows.
    )""",
    re.VERBOSE,
)


def main(schema_path, table_path, *good_paths):
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    for path in good_paths:
        with open(path, "rb") as file:
            wrong = list(validator.iter_errors(tomllib.load(file)))
        assert not wrong, (path, wrong)
    refused = taken = 0
    for title, name, text, problems in files(table_path):
        try:
            toml = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        known = [problem for problem in problems if not BEYOND.match(problem)]
        wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(toml)]
        if (known and not wrong) or (wrong and not problems):
            sys.exit(f"{title}, {name}:\nrefwatch says {known}\nthe schema says {wrong}")
        refused, taken = refused + bool(wrong), taken + (not wrong)
    print(f"{refused} files refused, {taken} taken whose mistakes no schema can know")
    assert refused >= 40 and taken >= 10


def files(table_path):
    """Every file of the table that is text, with what refwatch says of it."""
    with open(table_path, encoding="utf-8") as file:
        rows = file.read().split("\n### ")[1:]
    for row in rows:
        title, *sections = row.split("\n## ")
        *sections, (_, told) = (section.partition("\n")[::2] for section in sections)
        problems = re.split(r"\n(?=error: )", told.strip())
        for name, text in sections:
            if not name.endswith(", escaped"):
                place = re.compile(rf"error: {re.escape(name)}(?::\d+:\d+)?: ")
                yield title, name, text, [place.sub("error: ", p, count=1) for p in problems if place.match(p)]


main(*sys.argv[1:])
