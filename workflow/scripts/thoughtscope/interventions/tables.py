"""Room 7, interventions: what the tables of edits hold. No torch: who reads them needs none."""

import polars as pl

from ..frames import Schema, keys

ARMS = {
    "zero": "the latent taken away, a_t d on each generated token but sinks",
    "mean": "its mean activation put in place of its own there",
    "matched_latent": "another latent taken away, about as frequent and as strong",
    "random_direction": "as much taken away, ‖a_t d‖, along a direction at right angles to d, drawn with the covariance"
    " of the site's states",
    "shifted": "as much taken away, a_t d, at other tokens: its activation shifted within each segment",
    "add": "`strength` times its mean activation where active added at the places compared to",
    "add_random": "as much added there along the random direction",
}
"""The kinds of edits, and what each does to the states at the site."""

CONTROLS = ("matched_latent", "random_direction", "shifted")
"""The arms that a latent's own ablation is held against."""

CHOSEN = ("name", "link", "prediction")
"""By what latents are chosen."""

ABLATIONS_SCHEMA = Schema(
    "a trace, a latent and an edit of the states at its site; numbers are means over `pairs` of places, in nats",
    **keys("trace_id", "latent"),
    chosen=(pl.Enum(CHOSEN), "by what it was: its `name`, in `interventions.named`; its `link` to a pattern, among"
                             " candidates, those first that stand out (see `headline`) and whose effect on it is"
                             " predicted to be largest; or the effect that is predicted, on any pattern, among all"
                             " latents (see `attribution`)"),
    pattern=(pl.String, "the pattern that is by"),
    window=(pl.String, "window of that. `before`: places are those from which the pattern's first word is next;"
                       " `after`: those up to `analysis.tokens_after` after it"),
    arm=(pl.Enum(list(ARMS)), "; ".join(f"`{arm}`: {text}" for arm, text in ARMS.items())),
    strength=(pl.Float64, "how many times its usual activation is added; null where none is"),
    draw=(pl.UInt8, "which of several controls of the kind"),
    other=(pl.UInt32, "the latent that was taken away instead, of a `matched_latent`"),
    pairs=(pl.UInt32, "places at the pattern, each with one compared to: the nearest in the segment, after a token of"
                      " the same class"),
    pattern_at=(pl.Float64, "change, there, of the log-odds, log p / (1 - p), that a word of the pattern is next"),
    pattern_matched=(pl.Float64, "the same at the places compared to"),
    actual_at=(pl.Float64, "change of the log-odds of the token that is next there"),
    actual_matched=(pl.Float64, "the same at the places compared to"),
    log_p_at=(pl.Float64, "change of its log-probability there; with `before`, of a word of the pattern"),
    log_p_matched=(pl.Float64, "the same at the places compared to"),
    kl_at=(pl.Float64, "divergence there of what is next as edited from what it is unedited"),
    kl_matched=(pl.Float64, "the same at the places compared to"),
)  # fmt: skip


TOKEN_EFFECTS_SCHEMA = Schema(
    "a latent that was tried, a trace it was tried in, and a token that was written there",
    **keys("latent", "trace_id", "position"),
    change=(pl.Float32, "change of the token's log-probability, in nats, when the latent is taken away throughout"),
)

TOKEN_CHANGES_SCHEMA = Schema(
    "a leading latent, side and rank: tokens whose logits change most where it is held at its largest activation, on"
    " every generated token but sinks, beyond what they do where other leading latents are held so",
    **keys("latent"),
    side=(pl.Enum(["top", "bottom"]), "what rises most, or falls most, beyond others"),
    rank=(pl.UInt32, "from 1, the largest (top) or the smallest (bottom) first"),
    **keys("token_id", "token"),
    change=(pl.Float32, "mean change of its logit, less the mean over all tokens"),
    others=(pl.Float32, "the mean of the same for the site's other leading latents; 0 where there is none"),
    low=(pl.Float32, "change less others: lower end of its 95% interval over traces; too narrow, as the tokens were"
                     " chosen by it"),
    high=(pl.Float32, "upper end of that"),
    traces=(pl.UInt32, "traces it was held in"),
)  # fmt: skip

STEERING_ARMS = {
    "none": "nothing is added; the same text for all latents of the site, a row a pattern of theirs, with no latent",
    "prompt": "nothing is added, but the prompt asks for the pattern (`interventions.steering.instruction`); no latent",
    "latent": "strength times the latent's usual contribution, its mean activation where active along its direction",
    "matched_latent": "as much along the direction of another latent, about as frequent and as strong",
    "random_direction": "as much along a direction at right angles to it, drawn as the site's states are spread",
}
"""What steering adds."""

GRAM = 4
"""Tokens in a row of which it is counted how many have been written before."""

STEERING_SCHEMA = Schema(
    "a steered continuation of a trace, from the end of its first sentence on",
    **keys("latent"),
    pattern=(pl.String, "the pattern the latent is linked to"),
    arm=(pl.Enum(list(STEERING_ARMS)), "; ".join(f"`{arm}`: {text}" for arm, text in STEERING_ARMS.items())),
    strength=(pl.Float64, "how many times the usual contribution is added; 0 with `none` and `prompt`"),
    **keys("trace_id"),
    same=(pl.Boolean, "whether it is, token by token, what the trace says"),
    prefix=(pl.UInt32, "tokens of the trace that it continues, after the prompt"),
    tokens=(pl.UInt32, "tokens written then"),
    matches=(pl.UInt32, "places in these where a word of the pattern is"),
    truncated=(pl.Boolean, "whether it was cut by generation.max_new_tokens"),
    repeated=(pl.Float64, f"share of its runs of {GRAM} tokens that are there already, 0 to 1"),
    correct=(pl.Boolean, "whether its answer is right; null where that can't be said"),
    text=(pl.String, "what was written then"),
)  # fmt: skip

CONTINUED = 24
"""Tokens of a continuation in which a pattern's word is looked for."""

CONTINUED_MATCHES = 16
"""Matches of a pattern, evenly over all, from which the model writes on."""

STABILITY_SCHEMA = Schema(
    "a match of a pattern under the condition under study, by trace and place",
    **keys("trace_id", "condition"),
    kind=(pl.Enum(["pattern", "reason_word"]), "`pattern`"),
    name=(pl.String, "the pattern"),
    start=(pl.UInt32, "position of its first token"),
    end=(pl.UInt32, "position after its last token"),
    probability=(pl.Float64, "with which, drawn as the trace was, the next token there is one that matches of the"
                             " pattern begin with"),
    recurs=(pl.Float64, f"share of `interventions.continuations` from there in which a word of the pattern is among the"
                        f" first {CONTINUED} tokens; null where none was written"),
)  # fmt: skip

CUES = 2
"""Cues of a kind, those that the latent is most active on in all, that are put in."""

REACH = 8
"""Tokens, the cue's last first, over which the latent's activation is summed up."""

STRATEGIES = {
    "token": "the token it is most active on, put into the middle half of a prompt",
    "bigram": "that and the one before it",
    "trigram": "that and the two before it",
    "deletion": "the token it is most active on in a trace, left out",
}
"""What is done with a cue."""

INJECTIONS_SCHEMA = Schema(
    "a latent, a strategy, a trace (whose prompt the text is, or which a token is left out of) and a cue",
    **keys("latent"),
    pattern=(pl.String, "the pattern the latent is linked to"),
    strategy=(pl.Enum(list(STRATEGIES)), "; ".join(f"`{name}`: {text}" for name, text in STRATEGIES.items())),
    **keys("trace_id"),
    cue=(pl.String, "the cue's text"),
    alike=(pl.String, "those alike: of the same class and shape, about as frequent, on which it is hardly active"),
    in_place=(pl.Float64, f"its activation summed over {REACH} tokens from the cue's last on, in traces with the cue,"
                          " mean over places; with `deletion`, over those behind the token, in the trace as it is"),
    with_cue=(pl.Float64, "the same where the cue is put in, or left out"),
    with_alike=(pl.Float64, "the same where tokens alike are"),
)  # fmt: skip
