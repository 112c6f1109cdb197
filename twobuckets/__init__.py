"""The operations tool for two S3 buckets and a Lambda. This page is the map of its code.

Clients put files into a staging bucket; S3 wakes the processor, a Lambda function, which processes
each file and moves it to the archive bucket. Half of this package runs there (`processor/`); the
other half is the command `twobuckets`, which deploys such pipelines, fills them, and looks after
them.


FLOORS AND ROOMS

Imports point down: a room imports from lower floors only, never from its neighbours, and no two
modules import each other (tests/test_layers.py). A room's own docstring says what each of its
modules is for (tests/test_map.py).

Asking and showing
    cli/             reads options, asks, shows records, and turns errors into exit statuses
    cli/commands/    the commands, a module each, named as they are typed
    cli/views/       how each record looks to a person, a file a room

The verbs: each reads, plans, and applies what was agreed to
    artifact/        packs the user's function and our runtime into a zip, and tries to import it
    artifact/starter/  the project that `init` writes
    stack/           deploys, changes and deletes the CloudFormation stack
    upload/          gets files into staging, and goes on where it was interrupted
    links/           makes links to the upload page, lists and ends them
    doctor/          says what is wrong, since when and why, and fixes what is safe to fix
    reprocess/       gets objects processed again without losing one
    watch/           looks at the pipeline again and again
    probe/           sends a small file of its own end to end
    trace/           tells the life of a file
    local/           starts and stops the embedded AWS
    local/server/    is the embedded AWS: an emulator, with its gaps filled

What happened
    logs/            reads the processor's log, and tells from it what became of each file

The noun
    pipeline/        knows what the buckets, the function and their objects are, hold and say

The outside world
    s3/              S3's operations as requests and records; listings; exact deletes
    s3/engine/       signs and sends requests by the thousand; `Sender` is its only door
    aws/             everything else of AWS, by boto3; what AWS's error codes mean
    settings.py      flags, environment and file become one value that knows its origins
    database.py      one SQLite file, and what can be wrong with it, in words
    lists.py         lists of what failed, which another run can be fed from
    parallel.py      threads for calls that wait on AWS

Plain values
    sigv4.py         how AWS signs a request to S3
    records.py       records as lines of JSON
    errors.py        what a user can cause or meet, with its exit status and a way on
    text.py          what is safe to show, and to paste into a shell
    units.py         sizes, durations and instants as text
    prices.py        what storage and requests cost
    page/            the web page that uploads files: HTML, style and script
    manual/          the manual's pages, for the web and `help`

Inside Lambda
    processor/       processes a version, archives exactly it, deletes exactly it; imports nothing
                     of the rest, which imports its contract and its judgement of versions
    broker/          signs uploads for the page; of the rest it brings page/ and sigv4.py only


THE WAY OF A KEY

There, with `twobuckets upload a.csv --wait`: cli/__init__.py finds cli/commands/upload.py and hands
it an `App` (cli/app.py) with settings, clients, clock and output. upload/files.py makes a `File`
with its key; upload/small.py or upload/large.py is the conversation with S3 about it, one of many
that upload/send.py keeps going by pipeline/conversation.py. Its requests are built in
s3/operations.py and sent by s3/engine/. What comes back is a record, `Uploaded` or `Failed`;
cli/output.py writes it as JSON or asks cli/views/ how it looks.

In AWS, S3's event reaches processor/runtime.py: processor/events.py reads keys and versions,
processor/looking.py finds what both buckets hold, `process` runs, processor/archive.py copies,
proves and deletes, and one outcome line goes to the log, as processor/contract.py has it.

And back: logs/lines.py reads that line, logs/waiting.py makes a `Fate` of it, and the command shows
it. What is stuck instead, doctor/grouping.py finds and doctor/causes.py explains. From the archive
to staging again it goes by reprocess/plan.py and reprocess/moving.py, and stays archived meanwhile;
what waits in staging is woken by pipeline/waking.py.


WHERE IT IS DECIDED

whether a staged object is archived already   `judge_copy` in processor/copies.py, the one rule for
                                              the processor (processor/looking.py), and for doctor
                                              and reprocess (`Version.copy_of` in
                                              pipeline/versions.py)
whether two objects hold the same bytes       `compare` in processor/comparing.py
how S3's requests are built, answers read     s3/operations.py; ListParts is `list_parts` there
what an error code of AWS means               aws/codes.py
what can't be looked at                       pipeline/lookups.py, `CouldNotLook`
which request is sent again                   s3/engine/retry.py
which failures are the same error             logs/errors.py
how the processor's tries are counted         pipeline/retries.py
how a record looks, and how in JSON           cli/views/, records.py
exit statuses                                 errors.py, `ExitStatus`; 3, which means that
                                              a run came to its end and something needs you, is
                                              given by `App.finish(attention=True)` in cli/app.py


WORDS

A file is local, an object is remote. An object is staged, archived, stuck (in staging past a
threshold); an upload is incomplete, and orphaned past a threshold. An artifact is the Lambda zip.
An outcome is what processing did to one version, a fate what became of it in the end. A finding is
what doctor reports, a remedy the command that fixes it. To wake the processor is to invoke it for
a version that waits in staging. For all else AWS's words. In names, parse_ turns text into a value,
find_ and iter_ read, require_ returns or raises, plan reads and apply writes; _at is an aware
instant, _bytes a number of bytes, a duration a timedelta.


RULES

- An object is deleted only by its version id, or under a condition, and only once the same bytes
  are proven to be in the other bucket. What can't be proven stays. From staging delete the
  processor, pipeline/deleting.py what the processor left over, and reprocess/overtaken.py copies
  that were made a moment ago; from the archive only stack/destroy.py, with --delete-data; from both
  probe/cleaning.py what a probe itself put there.
- Keys are opaque: never stripped, normalised or split. Remote text is never markup, and reaches
  a terminal only through text.py. A presigned URL is a secret.
- What changes something plans first, shows the plan, asks, and applies it; only cli/ knows
  --dry-run and --yes.
- Data goes to stdout, all else to stderr, by cli/output.py alone. click is imported in cli/ only,
  rich in cli/output.py and cli/views/, boto3 in aws/ and processor/, ministack in local/server/.
- Time and sleep are handed in. An error says what was attempted, on what, why, and what to do next.


TO ADD

a check      write a finder in the module of its family in doctor/, and name it in that module's
             FINDERS; a remedy goes to doctor/remedies.py, or doctor/configuration.py
a setting    a field of `Settings` in settings.py; for the stack also a parameter in
             stack/template.yaml and its value in stack/template.py
a command    a module in cli/commands/, a line in COMMANDS in cli/__init__.py, its topic in manual/
a record     a frozen dataclass beside what makes it, and a view in cli/views/
a trigger    the event's shape in processor/events.py, its answer in processor/answers.py, its
             route in pipeline/notifications.py, its retries in pipeline/retries.py, and its check
             in doctor/wiring.py
an S3 call   a function in s3/operations.py that returns the request, and one that reads the answer
a page       a file in manual/, and a line in TOPICS in manual/__init__.py

`python -m tests.docs` writes the generated parts of the manual again.
"""

__version__ = "0.2.0"
