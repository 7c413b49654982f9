
mod layers;
