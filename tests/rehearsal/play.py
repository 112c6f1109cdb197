"""The rehearsal from the first file to the last one archived."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from tests.embedded import aws_command
from tests.rehearsal import mess as mess_
from tests.rehearsal import sentences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twobuckets.aws.clients import Aws

# Delivery, three tries and Lambda's pauses of one and two minutes: from then on a file that nothing
# mentions is not under way any more.
EVERY_TRY_IS_OVER = 120 + 3 * mess_.TIMEOUT + 180 + 2


def deploy(aws: Aws, project: Path) -> mess_.Mess:
    """Deploy the pipeline that the mess is made in."""
    (project / "processor.py").write_text(mess_.PROCESSOR)
    (project / "twobuckets.toml").write_text(f'[processor]\ntimeout = "{mess_.TIMEOUT}s"\n')
    status, _, said = sentences.run("deploy", "--yes")
    assert status == 0, said
    stack = aws.cloudformation.describe_stacks(StackName="local")["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return mess_.Mess(
        aws,
        staging=outputs["StagingBucket"],
        archive=outputs["ArchiveBucket"],
        function=outputs["FunctionName"],
        queue_url=outputs["FailureQueueUrl"],
    )


def rehearse(
    aws: Aws, project: Path, objects: int, *, young: bool, say: Callable[[str], None]
) -> None:
    """Make the mess, hold every sentence against it, paste the remedies, and look for each file.

    `young` ends it at the first look, while what nobody was told of may still be under way.
    """
    mess = deploy(aws, project)
    say("deployed")
    mess.make(objects)
    say(mess_.describe(mess))
    sentences.check_status(mess)
    say("status says what was made")
    if young:
        sentences.check_doctor(mess, is_young=True)
        sentences.check_words(mess)
        say("doctor says what was made")
        return
    time.sleep(max(0.0, mess.last_lost_at + EVERY_TRY_IS_OVER - time.time()))
    findings = sentences.check_doctor(mess, is_young=False)
    sentences.check_words(mess)
    say("doctor says what was made")
    # What nothing names is woken by a plain --fix, which needs nobody to mend anything first.
    status, _, said = sentences.run("doctor", "--fix", "--yes", "--older-than", "0s")
    assert status in (0, 3), said
    lost = mess.keys("lost")
    mess_.wait_until(lambda: not lost & mess.staged(), 60 + len(lost))
    say(f"doctor --fix had the {len(lost)} that nobody was told of archived")
    mess.mend()
    for finding in findings:
        if finding["remedy"] and finding["check"] != "stuck-never-invoked":
            paste(finding["remedy"], aws)
    mess_.wait_until(lambda: not mess.staged(), 60 + len(mess.fates))
    status, _, said = sentences.run(
        "doctor", "--json", "--older-than", "0s", "--uploads-older-than", "0s"
    )
    assert status == 0, said
    assert mess.lost_or_changed() == []
    say(f"every remedy pasted: {len(mess.fates)} of {len(mess.fates)} files archived as sent")


def paste(remedy: str, aws: Aws) -> None:
    """Do what a remedy says, as somebody who pastes it and says yes."""
    if remedy.startswith("twobuckets local exec aws "):
        aws_command.run(remedy, aws)
        return
    words = shlex.split(remedy)
    assert words[:3] == ["twobuckets", "--stack", "local"], remedy
    asks = words[3] in ("doctor", "redrive", "reprocess")
    status, _, said = sentences.run(*words[3:], *(["--yes"] if asks else []), "--json")
    assert status in (0, 3), said
