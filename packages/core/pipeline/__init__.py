"""The main job: from a folder of recordings to a judged diagnoser in a run folder."""
