"""Studies: their configuration, their components, their folders, and the command line.

A study passes through these modules:

1. `config` and `study`: the composed configuration, and the objects that it describes; `instantiate` builds them.
2. `identity`: short digests of what a number depends on: the scientific configuration with the data, the setting, the
   precision and the code (`code`). Every record, checkpoint and weights file holds its identity.
3. `stored`: `study.yaml`, the description of a study on disk, with its identity. It is read as data: commands that only
   read (`tables`, `status`, `logs`) use it and never build a `Study`.
4. `selected`: the study that a command line selects, by its configuration or by `study=FOLDER`.
5. `opening`: what a command checks before it adds to a folder: `study.yaml` must have the identity of the study that
   runs, and its code must be accepted.
6. `layout` and `contents`: where the records are, and what each kind of record may hold. A record is used only if its
   identity agrees with that of its study.
"""
