"""`gnano prepare`: from a plan to finished shards, by many processes or machines.

opening ─▶ preparation ─▶ workers ─▶ tokenizing ─▶ drafts ─▶ finishing ─▶ shards
the plan    one machine                               in the order of `scheduling`
           scale_out: the same on many, by the steps of `pipeline`
"""
