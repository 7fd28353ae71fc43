"""Checks the JSON Schema with the table of bad configurations: it rejects only what refwatch rejects, and all that a schema can."""

import json
import re
import sys
import tomllib

import jsonschema

# Errors that a schema cannot express: the length of durations, and relations between keys, entries and files.
NOT_IN_SCHEMA = re.compile(
    r"""error:\ (?:
      .*\ must\ be\ between\ \d+(?:ms|s|m|h|d)\ and
    | `(?:backoff_initial|created_within|remove_after)`,\ .*\ must\ not\ be\ longer\ than
    | `interval`\ must\ not\ be\ shorter\ than
    | there\ is\ no\ target
    | this\ (?:job|store)\ is\ in\ the\ watch\ list\ twice
    | this\ target\ is\ defined\ twice
    | two\ watches\ have\ the\ name
    | `external_id`\ needs\ `role_arn`
    | this\ is\ the\ id\ of\ a\ store
    | the\ key\ `kind`\ is\ missing
    | a\ (?:reference|sequence)\ store\ has\ no\ jobs\ of\ the\ kind
    | `kinds`\ of\ this\ store\ names\ no\ kind
    | unknown\ key\ `\w+`\ \(the\ valid\ keys\ are\ `target`,\ `job`,\ `store`\)  # In an included file.
    | two\ sinks\ have\ the\ name
    | `(?:on|watches)`\ of\ this\ sink\ is\ empty
    | a\ name\ in\ `headers`\ must\ not\ be
    | the\ sink\ (?:sets\ this\ header\ twice|")
    | `listen`\ must\ be\ an\ IP\ address\ and\ a\ port
    | `retention`\ must\ be\ a\ duration  # One that overflows.
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
    rejected = accepted = 0
    for title, name, text, problems in files(table_path):
        try:
            toml = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        expected = [problem for problem in problems if not NOT_IN_SCHEMA.match(problem)]
        wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(toml)]
        if (expected and not wrong) or (wrong and not problems):
            sys.exit(f"{title}, {name}:\nrefwatch reports {expected}\nthe schema reports {wrong}")
        rejected, accepted = rejected + bool(wrong), accepted + (not wrong)
    print(f"{rejected} files rejected, {accepted} accepted with errors that a schema cannot express")
    assert rejected >= 40 and accepted >= 10


def files(table_path):
    """Each text file of the table with refwatch's errors for it."""
    with open(table_path, encoding="utf-8") as file:
        rows = file.read().split("\n### ")[1:]
    for row in rows:
        title, *sections = row.split("\n## ")
        *sections, (_, errors) = (section.partition("\n")[::2] for section in sections)
        problems = re.split(r"\n(?=error: )", errors.strip())
        for name, text in sections:
            if not name.endswith(", escaped"):
                place = re.compile(rf"error: {re.escape(name)}(?::\d+:\d+)?: ")
                yield title, name, text, [place.sub("error: ", p, count=1) for p in problems if place.match(p)]


main(*sys.argv[1:])
