"""Jobs on a Ray cluster: the work of ``upscale``, done by workers on several machines."""
