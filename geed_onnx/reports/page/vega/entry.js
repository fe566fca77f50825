/* The part of Vega that the page calls. */
import vegaEmbed from "vega-embed";

window.vegaEmbed = vegaEmbed;
