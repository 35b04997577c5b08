"""The everyday questions to a ledger, each one SELECT: its answer is of one moment, also while a run writes.

`{where}` is where a filter on groups stands; `per_group` is common to all that count uses.
"""

from msgspec import Struct

_PER_GROUP = """
WITH per_group AS (
    SELECT group_id, COUNT(*) AS uses, MIN(step) AS first_step, MAX(step) AS last_step
    FROM uses GROUP BY group_id
)
"""


class Question(Struct, frozen=True, kw_only=True):
    """What is asked, and how the ledger is asked."""

    text: str
    sql: str

    @property
    def takes_filters(self) -> bool:
        """Whether it can be asked of one group or one caption alone."""
        return "{where}" in self.sql


QUESTIONS = {
    "summary": Question(
        text="how much was trained, on what, by whom",
        sql="""
SELECT 'steps' AS name, COALESCE(MAX(step), 0) AS value FROM uses
UNION ALL SELECT 'captions', COUNT(DISTINCT caption_id) FROM groups
UNION ALL SELECT 'groups', COUNT(*) FROM groups
UNION ALL SELECT 'images', COALESCE(SUM(json_array_length(seeds)), 0) FROM groups
UNION ALL SELECT 'uses of groups', COUNT(*) FROM uses
UNION ALL SELECT 'mean uses', ROUND(1.0 * (SELECT COUNT(*) FROM uses) / MAX(1, COUNT(*)), 3) FROM groups
UNION ALL SELECT 'workers', COUNT(DISTINCT worker) FROM groups
UNION ALL SELECT 'engines', COUNT(DISTINCT engine) FROM groups
UNION ALL SELECT 'dead letters', COUNT(*) FROM dead_letters
""",
    ),
    "uses": Question(
        text="how many groups were trained on once, twice and so on",
        sql=f"""{_PER_GROUP}
SELECT uses, COUNT(*) AS groups, ROUND(1.0 * COUNT(*) / (SELECT COUNT(*) FROM per_group), 4) AS share
FROM per_group GROUP BY uses ORDER BY uses
""",
    ),
    "captions": Question(
        text="every caption with its groups and uses, the most used first",
        sql=f"""{_PER_GROUP}
SELECT caption_id, caption, COUNT(*) AS groups, SUM(uses) AS uses,
       MIN(first_step) AS first_step, MAX(last_step) AS last_step
FROM groups JOIN per_group USING (group_id) JOIN captions USING (caption_id) {{where}}
GROUP BY caption_id ORDER BY uses DESC, caption_id
""",
    ),
    "workers": Question(
        text="what each worker drew, and when it was first and last trained on",
        sql=f"""{_PER_GROUP}
SELECT worker, COUNT(*) AS groups, SUM(uses) AS uses, COUNT(DISTINCT engine) AS engines,
       MIN(first_step) AS first_step, MAX(last_step) AS last_step
FROM groups JOIN per_group USING (group_id) {{where}} GROUP BY worker ORDER BY groups DESC, worker
""",
    ),
    "engines": Question(
        text="what each engine drew, and a group to redraw for each",
        sql=f"""{_PER_GROUP}
SELECT engine, content, COUNT(*) AS groups, SUM(uses) AS uses, COUNT(DISTINCT worker) AS workers,
       MIN(group_id) AS a_group
FROM groups JOIN per_group USING (group_id) {{where}}
GROUP BY engine, content ORDER BY groups DESC, engine
""",
    ),
    "groups": Question(
        text="every group: caption, views, uses, worker, digest",
        sql=f"""{_PER_GROUP}
SELECT group_id, caption, source, first_view, json_array_length(seeds) AS views, uses, first_step, last_step,
       worker, engine, digest
FROM groups JOIN per_group USING (group_id) JOIN captions USING (caption_id) {{where}} ORDER BY group_id
""",
    ),
    "trainings": Question(
        text="every training on a group: step, rank, place in the batch",
        sql="""
SELECT step, rank, slot, group_id, use, caption
FROM uses JOIN groups USING (group_id) JOIN captions USING (caption_id) {where} ORDER BY step, rank, slot
""",
    ),
    "switches": Question(
        text="modes and pauses, with the first step from which each held",
        sql="SELECT step, setting, origin, time FROM switches ORDER BY step, time",
    ),
    "dead-letters": Question(
        text="groups that no worker could draw, and why",
        sql="SELECT group_id, reason FROM dead_letters ORDER BY group_id",
    ),
}
