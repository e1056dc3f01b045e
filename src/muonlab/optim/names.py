"""Names that real nets use (timm, torchvision, transformers, nanoGPT, Llama, diffusers, tutorials), some as globs."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from muonlab.optim.places import Place


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Modules that are, or end in, an output head, wherever they stand: their last matrix is the head, unless it is square.
HEADS = _words(
    """head aux_head lm_head mlm_head head_dist mc_head shared_head cls_head reg_head seg_head segmentation_head
    policy_head value_head action_head output_head prediction_head pred_head qa_head q_head classification_head
    regression_head projection_head classifier *_classifier classifier_* unembed unembedding logits to_logits
    cls_logits lm_logits cls_score bbox_pred bbox_reg bbox_predictor qa_outputs embed_out"""
)
# A list of heads: each of its members is one.
HEAD_LISTS = _words("heads heads_dist lm_heads classifiers *class_embed *bbox_embed output_heads")
# Outside of layers that repeat, any layer is a head that is called so, but for what belongs to an attention.
HEADS_OF_ATTENTION = _words("*multi_head *per_head *attn_head *attention_head *query_head *key_head *value_head q_head")
# Names that mean other things within repeated layers (attention.output), so that they count outside of those alone.
HEAD_LEAVES = _words(
    """fc fc_out out_fc output output_layer output_projection output_proj out_layer decoder decoder_pred generator
    generator.proj cls score score.out_proj proj_out conv_out logits_proj vocab_projector vocab_proj vocab_projection
    seq_relationship last_linear final_layer final_layer.linear final_linear h2o i2o hidden2tag outc.conv"""
)
# Tables and tokens that are looked up or added, never multiplied with.
EMBEDDINGS = _words(
    """emb *_emb *embed *embeds *embedding* embed_* pos_embed* wte wpe W_E W_pos *_token *_tokens cls_token* latent
    latents rel_pos* relative_attention_bias *bias_table trainable_tokens*"""
)
# Linear layers whose columns are looked up: biases by distance (LayoutLMv3).
BIASES = _words("rel_pos*_bias relative_position*_bias")
# Layers that are called as tables are, and multiply.
PROJECTIONS = _words("*proj* *mapping* *patch*")
# Parameters of two and more axes that act element by element.
ELEMENTWISE = _words(
    """*bias* b_? A_log* D alpha beta *gamma gain temperature scale *_scale layer_scale* weight_g time_decay time_first
    time_faaaa time_mix_*"""
)
# Of PEFT's adapters what is no factor of a matrix: entries of rotations, reflections, kernels, logits, scales.
NO_FACTORS = _words("oft_R boft_R hra_u c3a_kernel vblora_* randlora_* module_logits")

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
# Modules whose parameters' use is known, so that their names need not be asked.
KNOWN = (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS, *RECURRENT)


def is_called(name: str, globs: Iterable[str]) -> bool:
    """Return whether a component of a name is one of these."""
    return any(fnmatchcase(name, glob) for glob in globs)


def is_table(place: Place) -> bool:
    """Return whether rows of a parameter are looked up: that of an embedding, or of something called so."""
    module, is_known = place.module, isinstance(place.module, KNOWN) or is_transposed(place)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) or (not is_known and "Embedding" in place.kind):
        return True
    if is_known or place.parameter.ndim != 2 or is_called(place.tensor, ELEMENTWISE):
        return is_called(place.tensor, EMBEDDINGS) or is_called(place.layer, BIASES)
    # T5 and BART call the vocabulary of both halves so.
    is_shared = place.layer == "shared" and not any(part.isdigit() for part in place.parts)
    is_named = is_called(place.layer, EMBEDDINGS) and not is_called(place.layer, PROJECTIONS)
    return is_called(place.tensor, EMBEDDINGS) or is_named or is_shared


def is_transposed(place: Place) -> bool:
    """Return whether the module is Conv1D of transformers, a linear layer whose weight is (in, out)."""
    return any(each.__name__ == "Conv1D" for each in type(place.module).__mro__)
